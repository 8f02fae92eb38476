"""What kind of thing went wrong in a run, beside the trainer's own sentence."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("runs", "0005_one_thing_for_each_input")]

    operations = [
        migrations.AddField(
            model_name="run",
            name="error_code",
            field=models.CharField(
                blank=True,
                choices=[
                    ("spec", "Its settings or inputs cannot be run."),
                    ("data", "There is a mistake in what it was given to read."),
                    ("refused", "It cannot go on with what it was given."),
                    ("diverged", "A figure of the training is no number any more."),
                    ("memory", "There was too little memory."),
                    ("disk", "The disk is full. What was saved before is kept."),
                    ("permission", "The trainer may not use a file that it needs."),
                    ("unexpected", "Something happened that nobody foresaw."),
                    ("not_started", "The trainer could not be started."),
                    ("killed", "The trainer was ended from outside, again and again."),
                    ("exited", "The trainer ended without saying why."),
                ],
                default="",
                max_length=12,
            ),
            preserve_default=False,
        ),
    ]
