//! Pools of items and of connections: how many are made, who gets them, what becomes of bad ones.

mod connections;
mod databases;
mod items;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use stolon::dagpool::DAGPool;
use stolon::pools::Pool;
use stolon::{GreenPile, GreenPool, hub, sleep};

use crate::util::leak::guarded;
use connections::one_wire;

const NOW: Duration = Duration::ZERO;
const MS: Duration = Duration::from_millis(1);

fn panics<R>(f: impl FnOnce() -> R) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn on_the_hubs_own_loop_what_has_to_wait_says_that_it_must_not() {
    guarded(|| {
        let told = Rc::new(RefCell::new(Vec::new()));
        let tells = Rc::clone(&told);
        hub::set_error_hook(move |panic| tells.borrow_mut().push(panic.to_string()));
        let (full, items) = (GreenPool::new(1), Pool::new(1, || ()));
        let (wires, _) = one_wire();
        let dag = DAGPool::<&str, i32>::new([]);
        let pile = Rc::new(GreenPile::with_pool(&full));
        let (lent, wire) = (items.get(), wires.get().unwrap());
        let green = Rc::new(full.spawn(|| sleep(20 * MS)));
        let calls: [Box<dyn FnOnce()>; 7] = [
            Box::new({
                let full = full.clone();
                move || full.spawn_n(|| ())
            }),
            Box::new({
                let full = full.clone();
                move || full.waitall().unwrap()
            }),
            Box::new({
                let items = items.clone();
                move || drop(items.get())
            }),
            Box::new({
                let wires = wires.clone();
                move || drop(wires.get())
            }),
            Box::new(move || drop(dag.wait_for(&"never"))),
            Box::new(move || pile.spawn(|| ())),
            Box::new({
                let green = Rc::clone(&green);
                move || green.wait()
            }),
        ];
        let count = calls.len();
        for call in calls {
            hub::schedule_call_global(NOW, call);
        }
        sleep(5 * MS);
        assert_eq!(told.borrow().len(), count, "{:?}", told.borrow());
        let text = "do not call blocking functions from the mainloop";
        assert!(told.borrow().iter().all(|told| told.contains(text)), "{:?}", told.borrow());
        hub::clear_error_hook();
        // Nothing is left of any of them.
        assert_eq!((full.waiting(), items.waiting(), wires.waiting()), (0, 0, 0));
        drop((lent, wire));
        green.wait();
        full.waitall().unwrap();
        // What need not wait works there.
        let (pool, ran) = (full.clone(), Rc::new(Cell::new(false)));
        let runs = Rc::clone(&ran);
        hub::schedule_call_global(NOW, move || {
            drop(items.get());
            pool.spawn_n(move || runs.set(true));
        });
        sleep(5 * MS);
        assert!(ran.get());
    });
}
