"""What a run read as its snapshot becomes an input of the role rankings."""

from typing import Any

from django.db import migrations


def forward(apps: Any, schema_editor: Any) -> None:
    run, run_input = apps.get_model("runs", "Run"), apps.get_model("runs", "RunInput")
    read = run.objects.filter(snapshot__isnull=False).values_list("pk", "snapshot_id")
    run_input.objects.bulk_create(
        run_input(run_id=pk, role="rankings", snapshot_id=snapshot)
        for pk, snapshot in read.iterator()
    )


def backward(apps: Any, schema_editor: Any) -> None:
    run, run_input = apps.get_model("runs", "Run"), apps.get_model("runs", "RunInput")
    for link in run_input.objects.filter(role="rankings").iterator():
        run.objects.filter(pk=link.run_id).update(snapshot_id=link.snapshot_id)
    run_input.objects.filter(version__isnull=True).delete()


class Migration(migrations.Migration):
    dependencies = [("runs", "0003_every_stage")]

    operations = [migrations.RunPython(forward, backward)]
