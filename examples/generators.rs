//! Generators: functions that yield items from any depth of calls, as iterators.
//!
//! ```text
//! cargo run --example generators
//! ```
//!
//! prints
//!
//! ```text
//! fibonacci: 0 1 1 2 3 5 8 13 21 34
//! permutations: abc bac cab acb bca cba
//! tree: 1 2 3 4 5 6 7
//! towers: a>c a>b c>b a>c b>a b>c a>c
//! words: 4 9 7 2
//! the rest is never made: 9 items, then "gone"
//! ```

use std::fmt::Display;

use stolon::greenlet::{self, Yielder};

fn main() {
    print("fibonacci", fibonacci().take(10));
    print("permutations", greenlet::iter(|yielder| permute(&mut ['a', 'b', 'c'], 3, yielder)));
    print("tree", walk(grow(1, 7)));
    print("towers", greenlet::iter(|yielder| move_tower(3, ['a', 'b', 'c'], yielder)));
    borrow("each generator borrows it");
    drop_half_way();
}

fn print(name: &str, items: impl Iterator<Item = impl Display>) {
    print!("{name}:");
    items.for_each(|item| print!(" {item}"));
    println!();
}

/// The function never ends; its generator does, when it is dropped.
fn fibonacci() -> impl Iterator<Item = u64> {
    greenlet::iter(|yielder| {
        let (mut this, mut next) = (0, 1);
        loop {
            yielder.yield_(this);
            (this, next) = (next, this + next);
        }
    })
}

/// Yields from the depth of a recursion: one generator, and plain calls. Heap's algorithm.
fn permute(items: &mut [char], rest: usize, yielder: &Yielder<String>) {
    if rest == 1 {
        return yielder.yield_(items.iter().collect());
    }
    for index in 0..rest {
        permute(items, rest - 1, yielder);
        items.swap(if rest % 2 == 0 { index } else { 0 }, rest - 1);
    }
}

fn move_tower(height: u32, [from, over, to]: [char; 3], yielder: &Yielder<String>) {
    if height > 0 {
        move_tower(height - 1, [from, to, over], yielder);
        yielder.yield_(format!("{from}>{to}"));
        move_tower(height - 1, [over, from, to], yielder);
    }
}

struct Tree(Option<Box<(Tree, u32, Tree)>>);

/// A balanced tree of the numbers from `first` to `last`.
fn grow(first: u32, last: u32) -> Tree {
    if first > last {
        return Tree(None);
    }
    let middle = first.midpoint(last);
    Tree(Some(Box::new((grow(first, middle - 1), middle, grow(middle + 1, last)))))
}

/// A generator for each node, which asks those of its subtrees.
fn walk(tree: Tree) -> impl Iterator<Item = u32> {
    greenlet::iter(|yielder| {
        if let Some(node) = tree.0 {
            walk(node.0).for_each(|number| yielder.yield_(number));
            yielder.yield_(node.1);
            walk(node.2).for_each(|number| yielder.yield_(number));
        }
    })
}

/// In a scope a generator may use what lies outside.
fn borrow(text: &str) {
    greenlet::scope(|scope| {
        let lengths = scope.iter(|yielder| {
            text.split(' ').for_each(|word| yielder.yield_(word.len()));
        });
        print("words", lengths);
    });
}

/// What a generator has on its stack is dropped with it.
fn drop_half_way() {
    struct Says(&'static str);
    impl Drop for Says {
        fn drop(&mut self) {
            println!(", then {:?}", self.0);
        }
    }
    let mut items = greenlet::iter(|yielder| {
        let _says = Says("gone");
        (0..1_000_000).for_each(|n| yielder.yield_(n));
    });
    print!("the rest is never made: {} items", items.by_ref().take(9).count());
    drop(items);
}
