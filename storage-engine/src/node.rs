//! The store node: opens the drives, binds the listeners, spawns the tasks, stops them in order.
