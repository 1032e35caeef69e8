"""Generated tables: what each architecture keeps dense, and the JSON Schema of the matrix file."""
