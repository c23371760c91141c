"""One file per revision, applied in order and never edited once released."""
