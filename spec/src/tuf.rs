//! Metadata of The Update Framework (specification 1.0.33), and its canonical JSON.
