"""
The log in tests: Django's TestCase runs each test inside one outer transaction, so new_transaction() before a request
gives it a transaction row of its own, as in production; TransactionTestCase needs nothing.
"""
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import F, Max
from django.db.models.functions import Coalesce
from django.test import TestCase, TransactionTestCase

from .audit import new_transaction, who
from .models import Activity, AuditLog, WorldElement


class Requests:
    def log(self, **what):
        return AuditLog.objects.filter(table_name="world_element", id__gt=self.before, **what)

    def post(self, path, data=None):
        new_transaction()
        return self.client.post(path, data or {}, content_type="application/json")

    def setUp(self):
        # the log is not emptied between tests
        self.before = AuditLog.objects.aggregate(last=Coalesce(Max("id"), 0))["last"]
        self.anna = User.objects.create_user("anna", password="s3cret")
        self.ben = User.objects.create_user("ben")

    def test_user_of_the_request(self):
        self.client.force_login(self.anna)
        self.post("/element/7", {"material": {"kind": "iron", "rust": 0.2}})
        self.client.force_login(self.ben)
        self.post("/element/7", {"material": {"kind": "iron", "rust": 0.5}, "name": "Anvil"})
        self.client.logout()
        self.post("/clear")
        entries = self.log(record_id="7")
        self.assertEqual([(e.user_id, e.action_type) for e in entries], [
            (str(self.anna.pk), "INSERT"), (str(self.anna.pk), "UPDATE"), (str(self.ben.pk), "UPDATE"), (None, "DELETE")])
        self.assertEqual(entries[2].changes, {"name": ["Element 7", "Anvil"], "attributes": {"material": {"rust": [0.2, 0.5]}}})
        self.assertEqual([e.context["path"] for e in entries], ["/element/7"] * 3 + ["/clear"])
        self.assertEqual(len({e.context["request"] for e in entries}), 3)
        # statements that are committed one by one are transactions of their own
        self.assertIn(len({e.transaction_id for e in entries}), (3, 4))

    def test_nothing_is_left_behind(self):
        with who(self.anna.pk, reason="import"):
            WorldElement.objects.create(pk=1, name="by Anna")
        WorldElement.objects.filter(pk=1).update(name="by nobody")
        if not connection.in_atomic_block:
            self.assertEqual([e.user_id for e in self.log()], [str(self.anna.pk), None])
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('audit_log.user_id', true)")
            if not connection.in_atomic_block:
                self.assertFalse(cursor.fetchone()[0])

    def test_every_way_to_write(self):
        with who(self.anna.pk, reason="bulk"):
            WorldElement.objects.bulk_create([WorldElement(pk=n, name=f"Nail {n}") for n in range(10, 20)])
            WorldElement.objects.update(name=F("name"), attributes={"size": "100%"})
            with connection.cursor() as cursor:
                cursor.execute("UPDATE world_element SET name = 'what is 100%' WHERE id = 10")
                cursor.executemany("UPDATE world_element SET name = %s WHERE id = %s", [["eleven", 11], ["twelve", 12]])
            with transaction.atomic():
                WorldElement.objects.filter(pk=13).update(name="thirteen")
            WorldElement.objects.all().delete()
        self.assertEqual(self.log(user_id=str(self.anna.pk)).count(), self.log().count())
        self.assertEqual(self.log(action_type="UPDATE").count(), 14)
        self.assertEqual({e.context["reason"] for e in self.log()}, {"bulk"})

    def test_activity(self):
        with who(self.ben.pk):
            item = WorldElement.objects.create(name="Anvil")
            item.name = "Hammer"
            item.save()
        entries = Activity.objects.filter(entity_id=item.pk).order_by("id")
        self.assertEqual([str(e) for e in entries], [
            "created by ben: Anvil has come into the world", "renamed by ben: Anvil is now called Hammer"])
        self.assertEqual(self.ben.activities.count(), 2)
        with connection.cursor() as cursor:  # as the database does it
            cursor.execute("DELETE FROM auth_user WHERE id = %s", [self.ben.pk])
        self.assertEqual([e.user_id for e in entries.all()], [None, None])

    def test_passwords_stay_out(self):
        entry = AuditLog.objects.get(table_name="auth_user", action_type="INSERT", id__gt=self.before, record_id=str(self.anna.pk))
        self.assertRegex(entry.changes["password"], "^[0-9a-f]{64}$")


class InOneTransaction(Requests, TestCase):
    def test_requests_have_rows_of_their_own(self):
        self.post("/element/1", {"a": 1})
        self.post("/element/1", {"a": 2})
        self.assertEqual(len({e.transaction_id for e in self.log(record_id="1")}), 2)


class InManyTransactions(Requests, TransactionTestCase):
    # named, so that tables are emptied with those that refer to them: the feed to the users
    available_apps = settings.INSTALLED_APPS

    def test_rolled_back(self):
        with self.assertRaises(ZeroDivisionError), who(self.anna.pk), transaction.atomic():
            WorldElement.objects.create(name="not to be")
            1 / 0
        self.assertEqual(self.log().count(), 0)
