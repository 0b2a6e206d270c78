from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("world", "0001_initial")]
    operations = [
        # going back drops the log with the extension
        migrations.RunSQL("CREATE EXTENSION IF NOT EXISTS audit_log", "DROP EXTENSION audit_log"),
        migrations.RunSQL(
            ["SELECT audit_log.enable('world_element', baseline => true)",
             # what authenticates is nobody's to read, in the log neither; nor is each login a change
             "SELECT audit_log.enable('auth_user', baseline => true, exclude => '{last_login}', mask => '{password}')"],
            ["SELECT audit_log.disable('auth_user')", "SELECT audit_log.disable('world_element')"]),
        migrations.RunSQL(
            ["SELECT audit_log.create_activity_table('activity', user_table => 'auth_user', entity_type => 'integer')",
             "SELECT audit_log.describe('world_element', 'insert', 'created', '{name} has come into the world')",
             "SELECT audit_log.describe('world_element', 'update', 'renamed', '{name.old} is now called {name}')"],
            ["SELECT audit_log.describe('world_element', 'update', NULL, NULL)",
             "SELECT audit_log.describe('world_element', 'insert', NULL, NULL)",
             "DROP TABLE activity"]),
    ]
