from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0004_snapshots_are_inputs")]

    operations = [
        migrations.RemoveField(
            model_name="run",
            name="snapshot",
        ),
        migrations.AddConstraint(
            model_name="runinput",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("corpus__isnull", True),
                        ("snapshot__isnull", True),
                        ("source__isnull", True),
                        ("version__isnull", False),
                    ),
                    models.Q(
                        ("corpus__isnull", True),
                        ("snapshot__isnull", False),
                        ("source__isnull", True),
                        ("version__isnull", True),
                    ),
                    models.Q(
                        ("corpus__isnull", False),
                        ("snapshot__isnull", True),
                        ("source__isnull", True),
                        ("version__isnull", True),
                    ),
                    models.Q(
                        ("corpus__isnull", True),
                        ("snapshot__isnull", True),
                        ("source__isnull", False),
                        ("version__isnull", True),
                    ),
                    _connector="OR",
                ),
                name="run_input_is_one_thing",
            ),
        ),
    ]
