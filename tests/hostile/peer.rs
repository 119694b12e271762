//! A peer with the seed that errs.
