"""A Django site: the admin, templates, forms, and 200,000 records in memory."""
