//! The disk: partition types, labels and sizes (Discoverable Partitions Specification).
