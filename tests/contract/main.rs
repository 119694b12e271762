//! The contract suite: every row of the contract against the built binary, driven by `wasmcloud-test-util`.
//!
//! That kit starts one provider per process and never stops it, so all cases share one. They are listed below, use keys
//! of their own and run side by side; `cargo test --test contract NAME` runs those that have NAME in theirs.

// Tests wait and measure in real time; the clock rule of clippy.toml is for the provider's core.
#![allow(clippy::disallowed_methods)]

mod concurrency;
mod expiry;
mod lists;
mod names;
mod numbers;
mod requests;
mod sets;
mod strings;
mod suite;
mod types;

use std::process::ExitCode;

use suite::{cases, Case};

fn all_cases() -> Vec<Case> {
    cases![
        strings::get_and_contains_see_what_was_set,
        strings::del_is_true_once_for_any_type,
        strings::set_replaces_any_type,
        strings::set_answers_with_an_empty_body,
        strings::set_requests_come_in_several_shapes,
        numbers::increment_counts_from_zero_and_returns_the_new_value,
        numbers::only_canonical_integers_can_be_incremented,
        numbers::a_result_outside_i32_is_an_error_that_names_the_limit,
        numbers::get_reads_any_i64,
        lists::list_add_returns_the_new_length,
        lists::list_range_is_inclusive_and_clipped,
        lists::list_del_removes_the_first_equal_item,
        lists::list_clear_deletes_any_type,
        sets::set_add_and_del_count_changes,
        sets::set_query_is_sorted,
        sets::union_and_intersection,
        sets::union_and_intersection_of_nothing_is_an_error,
        sets::union_and_intersection_refuse_other_types,
        sets::set_clear_deletes_any_type,
        types::operations_on_a_key_of_another_type_are_refused,
        expiry::a_value_expires_to_the_second,
        expiry::a_later_set_replaces_the_deadline,
        expiry::increment_keeps_the_deadline,
        expiry::an_expired_key_is_gone_for_every_operation,
        expiry::a_far_deadline_is_no_overflow,
        names::keys_and_values_are_any_text,
        names::long_keys,
        names::values_of_several_mebibytes,
        names::answers_of_several_mebibytes,
        requests::unknown_methods_are_named,
        requests::undecodable_arguments_are_named,
        requests::numbers_out_of_range_are_refused,
        requests::missing_and_misspelt_fields_are_refused_and_named,
        requests::unknown_fields_and_array_encoding_are_accepted,
        requests::health_has_a_message_in_parts,
        concurrency::increments_of_many_callers_add_up,
        concurrency::list_additions_keep_the_order_of_each_caller,
        concurrency::set_additions_of_many_callers_all_arrive,
        concurrency::mixed_writers_of_one_key_leave_one_type,
    ]
}

fn main() -> ExitCode {
    suite::run(all_cases())
}
