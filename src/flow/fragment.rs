//! IP fragments → datagrams.
