//! my.cnf
