//! The vocabulary: resource table, object rules, selectors, quantities, patches, tables, status errors (pure).

pub mod quantity;
