//! Shuffle sharding: each flow has a hand of several queues, dealt by its hash.
//!
//! Two flows rarely have the same hand. So however many requests one flow sends, most others have a queue that it does
//! not fill.

/// No hand is larger: what validation allows has at most 60 bits in it.
const LARGEST: usize = 16;

/// The queues of the flow with this hash: `size` different ones of `deck`.
pub(super) fn deal(mut hash: u64, deck: usize, size: usize) -> impl Iterator<Item = usize> {
    let size = size.clamp(1, LARGEST).min(deck.max(1));
    let (mut hand, mut dealt) = ([0; LARGEST], [0; LARGEST]);
    for n in 0..size {
        let left = (deck - n).max(1) as u64;
        // Smaller than the deck.
        let mut card = (hash % left) as usize;
        hash /= left;
        // The card counts among those that are left: the dealt ones, in order, are stepped over.
        let place = dealt[..n].iter().position(|other| {
            let is_after = card >= *other;
            card += usize::from(is_after);
            !is_after
        });
        let place = place.unwrap_or(n);
        dealt.copy_within(place..n, place + 1);
        dealt[place] = card;
        hand[n] = card;
    }
    hand.into_iter().take(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_no_card_twice_and_every_card_comes_as_often() {
        let mut counts = [0u32; 8];
        let mut hash = 1u64;
        for _ in 0..8000 {
            hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut hand: Vec<usize> = deal(hash >> 8, 8, 3).collect();
            hand.iter().for_each(|card| counts[*card] += 1);
            hand.sort_unstable();
            hand.dedup();
            assert_eq!(hand.len(), 3);
        }
        assert!(counts.iter().all(|n| (2700..3300).contains(n)), "{counts:?}");
    }

    #[test]
    fn a_hand_may_be_the_whole_deck() {
        for (deck, size) in [(1, 1), (2, 2), (5, 5), (16, 15)] {
            let mut hand: Vec<usize> = deal(u64::MAX / 3, deck, size).collect();
            hand.sort_unstable();
            hand.dedup();
            assert_eq!(hand.len(), size);
        }
    }
}
