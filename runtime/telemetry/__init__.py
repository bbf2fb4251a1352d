"""What PDUs, servers and GPUs count beside the meters: shares and context, in a process of its own."""
