import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]
    operations = [
        migrations.CreateModel("WorldElement", [
            ("id", models.AutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ("name", models.TextField()),
            ("attributes", models.JSONField(default=dict)),
            ("location", models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, to="world.worldelement")),
        ], options={"db_table": "world_element"}),
        migrations.CreateModel("Activity", [
            ("id", models.AutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ("timestamp", models.DateTimeField()),
            ("activity_type", models.CharField(max_length=50)),
            ("description", models.TextField()),
            ("entity_id", models.IntegerField(null=True)),
        ], options={"db_table": "activity", "managed": False}),
        migrations.CreateModel("AuditLog", [
            ("id", models.BigIntegerField(primary_key=True, serialize=False)),
            ("timestamp", models.DateTimeField()),
            ("user_id", models.TextField(null=True)),
            ("action_type", models.TextField()),
            ("table_name", models.TextField()),
            ("record_id", models.TextField(null=True)),
            ("changes", models.JSONField(null=True)),
            ("transaction_id", models.BigIntegerField()),
            ("context", models.JSONField(null=True)),
        ], options={"db_table": '"audit_log"."audit_logs"', "ordering": ["id"], "managed": False}),
    ]
