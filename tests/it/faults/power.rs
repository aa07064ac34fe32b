//! The power of the checkers: each mistake that bridges are known to make is found out, by a scenario that finds nothing
//! where nobody makes one.
