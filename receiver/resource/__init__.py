"""What /proc says about a process, one kind of evidence a file; :mod:`receiver.process` makes a resource of it."""
