//! From the letters of a batch to marks.

use std::collections::HashMap;

use viaduct_sink::{Mark, Numbers, Place};

/// A letter of a batch, for its mark.
pub(super) struct Fate<'l> {
    pub(super) place: &'l Place,
    /// See [`marks_of`].
    pub(super) joined: bool,
    /// Whether it is to be marked.
    pub(super) is_over: bool,
}

/// The marks of a batch. Neighbours (`joined`: nothing between them stays unmarked) make one range, also where numbers between them are of no dead letter: a mark of
/// thousands of letters stays small.
pub(super) fn marks_of<'l>(fates: impl Iterator<Item = Fate<'l>>) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    // The last letter of each log, where it is marked.
    let mut last: HashMap<&str, u64> = HashMap::new();
    for Fate { place, joined, is_over } in fates {
        let before = last.remove(&*place.log).filter(|_| joined);
        if !is_over {
            continue;
        }
        last.insert(&place.log, place.number);
        let first = before.map_or(place.number, |before| before + 1);
        match marks.iter_mut().find(|mark| mark.log == place.log) {
            Some(mark) => mark.numbers.insert(first, place.number),
            None => {
                let mut numbers = Numbers::default();
                numbers.insert(first, place.number);
                marks.push(Mark { log: place.log.clone(), numbers });
            }
        }
    }
    marks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_join_neighbours_and_nothing_else() {
        let place = |log: &str, number| Place { id: String::new(), log: log.into(), number };
        let letters = [
            (place("a", 3), true, true),
            (place("b", 1), true, true),
            (place("a", 9), true, true),
            // Something was passed over before it.
            (place("a", 20), false, true),
            // It failed.
            (place("a", 21), true, false),
            (place("a", 30), true, true),
            (place("b", 7), true, true),
        ];
        let fates =
            letters.iter().map(|(place, joined, is_over)| Fate { place, joined: *joined, is_over: *is_over });
        let marks: Vec<String> =
            marks_of(fates).iter().map(|mark| format!("{} {}", mark.log, mark.numbers)).collect();
        assert_eq!(marks, ["a 3-9,20,30", "b 1-7"]);
    }
}
