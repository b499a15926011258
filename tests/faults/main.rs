//! What goes wrong around an installation: real processes and a real API server, of which some are
//! stopped, killed, doubled or robbed of what they need. A clear answer, and nothing lost.
#![cfg(test)]

mod floor;
mod mid_move;
mod outages;
mod rivals;

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures::FutureExt as _;

use floor::Floor;

/// Runs the scenarios one after the other, all of them even when one fails; gives those that did.
macro_rules! run {
    ($floor:expr, $($room:ident::$scenario:ident),+ $(,)?) => {{
        let mut failed = Vec::new();
        $(
            let begin = Instant::now();
            let outcome = AssertUnwindSafe($room::$scenario(&mut $floor)).catch_unwind().await;
            let what = stringify!($scenario).replace('_', " ");
            let word = if outcome.is_ok() { "ok" } else { "FAILED" };
            // Not print: the list is wanted when the test passes, too.
            let seconds = begin.elapsed().as_secs();
            writeln!(std::io::stderr(), "{seconds:>4} s  {word:<6}  {what}").unwrap();
            if outcome.is_err() {
                failed.push(what);
            }
            $floor.mend().await;
        )+
        failed
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_is_told_and_got_over() {
    let mut floor = Floor::start().await;
    let failed = run!(
        floor,
        rivals::two_gateways_begin_one_operation,
        rivals::two_active_controllers_do_no_harm,
        rivals::a_hub_under_two_names_is_refused,
        rivals::a_device_id_belongs_to_one_registration,
        mid_move::an_edit_applies_after_the_move,
        mid_move::a_disabled_enrollment_applies_after_the_move,
        mid_move::a_deleted_enrollment_does_not_stop_the_move,
        mid_move::a_registration_deleted_and_made_again_starts_afresh,
        mid_move::a_hub_that_loses_its_secret_is_not_moved_to,
        outages::a_source_that_is_gone_is_waited_for,
        outages::a_device_deleted_behind_our_back_is_made_again,
        outages::a_hub_killed_under_load_loses_nothing,
        outages::without_the_api_server_devices_get_clear_answers,
    );
    assert!(failed.is_empty(), "each said why above: {failed:#?}");
}
