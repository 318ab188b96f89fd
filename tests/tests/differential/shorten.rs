//! The shortest part of a script over which the two servers still differ.

use crate::script::Script;

/// The most scripts that are tried.
const TRIES_MAX: usize = 400;

/// Leaves out whatever may be left out: halves first, then smaller pieces, then single steps.
pub(crate) fn shortest(mut script: Script, mut fails: impl FnMut(&Script) -> bool) -> Script {
    let mut tries = 0;
    let mut size = script.steps.len().div_ceil(2);
    while size > 0 && tries < TRIES_MAX {
        let mut at = 0;
        let before = script.steps.len();
        while at < script.steps.len() && tries < TRIES_MAX {
            let mut shorter = script.clone();
            let end = (at + size).min(shorter.steps.len());
            shorter.steps.drain(at..end);
            tries += 1;
            if !shorter.steps.is_empty() && fails(&shorter) {
                script = shorter;
            } else {
                at += size;
            }
        }
        // Single steps are tried again until none can go.
        if size > 1 || script.steps.len() == before {
            size /= 2;
        }
    }
    let whole = Script {
        lengths: vec![usize::MAX],
        ..script.clone()
    };
    if fails(&whole) { whole } else { script }
}
