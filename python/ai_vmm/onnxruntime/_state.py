"""What onnxruntime's module-level setters set, for sessions made afterwards."""

seed: int = 0
pool_threads: int = 0
