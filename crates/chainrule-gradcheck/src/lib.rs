//! A gradient checker and the laws that every chainrule layer obeys.
