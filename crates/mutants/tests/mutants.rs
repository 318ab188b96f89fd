//! The names of the mutants, and that none of them is in an ordinary build.

use quorate_mutants::Mutant;

/// `AckBeforeSync` as `ack-before-sync`.
fn kebab_case(mutant: Mutant) -> String {
    let mut name = String::new();
    for letter in format!("{mutant:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[test]
fn a_name_is_that_of_the_variant_and_is_read_back() {
    for mutant in Mutant::ALL {
        assert_eq!(mutant.name(), kebab_case(*mutant));
        assert_eq!(mutant.to_string(), mutant.name());
        assert_eq!(mutant.name().parse(), Ok(*mutant));
    }
    let unknown = "vote-twice".parse::<Mutant>();
    let unknown = unknown.expect_err("there is no such mutant");
    assert_eq!(unknown.to_string(), "no mutant is called \"vote-twice\"");
}

#[cfg(not(feature = "switch"))]
#[test]
fn no_mutant_is_on_in_an_ordinary_build() {
    const { assert!(!quorate_mutants::is_on(Mutant::VoteForgotten)) };
    assert!(!Mutant::ALL.iter().any(|it| quorate_mutants::is_on(*it)));
}

#[cfg(feature = "switch")]
#[test]
fn one_mutant_is_on_in_the_thread_that_has_switched_it_on() {
    use quorate_mutants::{is_on, switch_on};
    let on = || Mutant::ALL.iter().copied().filter(|it| is_on(*it));
    assert_eq!(on().count(), 0);
    switch_on(Some(Mutant::NoSync));
    assert_eq!(on().collect::<Vec<_>>(), [Mutant::NoSync]);
    let elsewhere = std::thread::spawn(|| is_on(Mutant::NoSync));
    assert!(!elsewhere.join().expect("it does not panic"));
    switch_on(None);
    assert_eq!(on().count(), 0);
}
