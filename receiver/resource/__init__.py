"""From a process to the resource of its spans: what /proc says, and the rules that make a service's name of it."""
