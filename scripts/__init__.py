"""Tools around the project; nothing here is imported by labelhub or trainer."""
