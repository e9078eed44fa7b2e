//! The cost of one turn through the breaker when nobody else wants one.

#![allow(missing_docs)]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use criterion::{Criterion, criterion_group, criterion_main};
use pilotlight_net::Breaker;

fn uncontended(criterion: &mut Criterion) {
    let breaker = Breaker::new(100, 1000);
    criterion.bench_function("try_acquire and release", |bencher| {
        bencher.iter(|| assert!(breaker.try_acquire().is_some()));
    });
    criterion.bench_function("acquire and release", |bencher| {
        bencher.iter(|| {
            let acquired = pin!(breaker.acquire()).poll(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(acquired, Poll::Ready(Ok(_))));
        });
    });
}

criterion_group!(benches, uncontended);
criterion_main!(benches);
