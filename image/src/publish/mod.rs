//! The update repository: keys, metadata, signing.
