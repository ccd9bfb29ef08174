"""What answers at which path: HTTP and nothing else, over the bodies that `sambay.protocols` reads and writes."""
