"""One quantization method per file. A file that defines a ``Method`` and registers it is all there is to adding one."""
