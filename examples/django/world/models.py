from django.conf import settings
from django.db import models


class WorldElement(models.Model):
    name = models.TextField()
    attributes = models.JSONField(default=dict)
    location = models.ForeignKey("self", models.SET_NULL, null=True)

    class Meta:
        db_table = "world_element"


class Activity(models.Model):
    """The activity feed: audit_log.create_activity_table() makes it."""
    timestamp = models.DateTimeField()
    # the database itself sets it NULL
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.DO_NOTHING, null=True, related_name="activities")
    activity_type = models.CharField(max_length=50)
    description = models.TextField()
    entity_id = models.IntegerField(null=True)

    class Meta:
        managed = False
        db_table = "activity"

    def __str__(self):
        return f"{self.activity_type} by {self.user or 'nobody'}: {self.description:.60}"


class AuditLog(models.Model):
    """The log, to be read only: a view of audit_log."""
    id = models.BigIntegerField(primary_key=True)
    timestamp = models.DateTimeField()
    user_id = models.TextField(null=True)
    action_type = models.TextField()
    table_name = models.TextField()
    record_id = models.TextField(null=True)
    changes = models.JSONField(null=True)
    transaction_id = models.BigIntegerField()
    context = models.JSONField(null=True)

    class Meta:
        managed = False
        db_table = '"audit_log"."audit_logs"'
        ordering = ["id"]
