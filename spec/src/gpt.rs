//! GUID partition tables, read and written (UEFI Specification 2.10, chapter 5.3).
