"""The structs that cross a thread or a process, and how Python sees them. Takes from no other room."""
