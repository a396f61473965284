//! The data plane: volume replication, deletion, backfill, repair.
