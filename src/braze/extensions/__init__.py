"""What people teach Braze about operators and graphs of their own: the registrations, and their text."""
