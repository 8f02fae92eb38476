"""Snapshots of the winners of a best-of-n run, which know their run."""

from __future__ import annotations

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q

KINDS = [
    ("rankings", "rankings"),
    ("ideal", "ideal answers that annotators wrote"),
    ("best", "best answers of the rankings"),
    ("file", "pairs from a file"),
    ("winners", "winners of a best-of-n run"),
]


class Migration(migrations.Migration):
    dependencies = [("runs", "0006_kinds_of_failures")]

    operations = [
        migrations.AddField(
            model_name="snapshot",
            name="source",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="winners",
                to="runs.run",
            ),
        ),
        migrations.RemoveConstraint(model_name="snapshot", name="snapshot_kind_known"),
        migrations.AlterField(
            model_name="snapshot",
            name="kind",
            field=models.CharField(choices=KINDS, default="rankings", max_length=8),
        ),
        migrations.AddConstraint(
            model_name="snapshot",
            constraint=models.CheckConstraint(
                condition=Q(kind__in=["rankings", "ideal", "best", "file", "winners"]),
                name="snapshot_kind_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="snapshot",
            constraint=models.CheckConstraint(
                condition=Q(kind="winners", source__isnull=False)
                | (~Q(kind="winners") & Q(source__isnull=True)),
                name="snapshot_of_winners_names_their_run",
            ),
        ),
    ]
