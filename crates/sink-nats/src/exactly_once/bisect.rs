//! Finds the record because of which the server rejects whole batches without naming it: order kept, pure.
//!
//! After a rejection of *n* records the first half of them is offered as a batch of its own. Either it is stored (the
//! culprit is among the rest), or it is rejected (the culprit is in it). So the culprit is alone after log2(n) batches,
//! and everything before it is stored.

/// How many records the next batch may have.
#[derive(Debug, Default)]
pub(crate) struct Bisect {
    /// Among so many records at the head there is a culprit.
    suspects: Option<usize>,
}

impl Bisect {
    /// The size of the next batch, of at most `limit` records.
    pub(crate) fn size(&self, limit: usize) -> usize {
        match self.suspects {
            Some(suspects) => suspects.div_ceil(2).clamp(1, limit),
            None => limit,
        }
    }

    /// The `count` records at the head are stored.
    pub(crate) fn stored(&mut self, count: usize) {
        self.suspects =
            self.suspects.and_then(|suspects| suspects.checked_sub(count)).filter(|left| *left > 0);
    }

    /// The `count` records at the head were rejected, one of them is to blame. `true`: it is the only one, and is out.
    pub(crate) fn rejected(&mut self, count: usize) -> bool {
        let found = count <= 1;
        self.suspects = (!found).then_some(count);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is stored and what is rejected of `count` records, and how many batches it took.
    fn run(count: usize, bad: &[usize]) -> (Vec<usize>, Vec<usize>, usize) {
        let (mut stored, mut rejected, mut batches) = (Vec::new(), Vec::new(), 0);
        let (mut bisect, mut head) = (Bisect::default(), 0);
        while head < count {
            let size = bisect.size(1_000).min(count - head);
            let batch = head..head + size;
            batches += 1;
            if bad.iter().any(|bad| batch.contains(bad)) {
                if bisect.rejected(size) {
                    rejected.push(head);
                    head += 1;
                }
            } else {
                stored.extend(batch);
                bisect.stored(size);
                head += size;
            }
        }
        (stored, rejected, batches)
    }

    #[test]
    fn the_culprit_is_found_wherever_it_stands_and_nothing_else_is_lost_or_reordered() {
        for bad in
            [vec![], vec![0], vec![999], vec![777], vec![0, 1, 2], vec![3, 500, 501, 999], vec![998, 999]]
        {
            let (stored, rejected, batches) = run(1_000, &bad);
            assert_eq!(rejected, bad);
            let good: Vec<usize> = (0..1_000).filter(|index| !bad.contains(index)).collect();
            assert_eq!(stored, good);
            assert!(batches <= 1 + bad.len() * 13, "{bad:?}: {batches} batches");
        }
        assert_eq!(run(1, &[0]), (vec![], vec![0], 1));
    }

    #[test]
    fn the_size_is_never_above_the_limit_nor_zero() {
        let mut bisect = Bisect::default();
        assert!(!bisect.rejected(900));
        assert_eq!(bisect.size(100), 100);
        assert!(!bisect.rejected(2));
        assert_eq!(bisect.size(100), 1);
        bisect.stored(5);
        assert_eq!(bisect.size(100), 100);
    }
}
