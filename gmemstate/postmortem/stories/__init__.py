"""What is said of an incident: a module for each subject, a function for each kind of incident."""
