//! The macros.

/// Tests every law of layers over random shapes and hyper-parameters. How a block is written: [`laws`](mod@crate::laws).
///
/// ```ignore
/// laws! {
///     obeys_the_laws(rows in 1..5usize, inputs in 1..8usize, outputs in 1..8usize, bias in any::<bool>()) {
///         layer: Linear::new(inputs, outputs).bias(bias),
///         input: [rows, inputs],
///         wrong: [rows, inputs + 1],
///     }
/// }
/// ```
#[macro_export]
macro_rules! laws {
    (
        $(#![cases = $cases:expr])?
        $(
            $(#[$attribute:meta])*
            $name:ident($($pattern:pat_param in $strategy:expr),* $(,)?) {
                layer: $layer:expr,
                $kind:ident: $shape:expr
                $(, $option:ident $(($of:expr))?: $value:expr)* $(,)?
            }
        )+
    ) => {
        $crate::__tests! {
            ($(Some($cases))?)
            $(
                $(#[$attribute])*
                $name($($pattern in $strategy),*) |seed| {
                    $crate::laws::layer_laws(
                        &$crate::laws::Case::new(seed).$kind($shape)$(.$option($($of,)? $value))*,
                        &|| {
                            #[allow(dead_code)]
                            type T = f64;
                            $crate::laws::BoxModule::<f64>::new($layer)
                        },
                        &|| {
                            #[allow(dead_code)]
                            type T = f32;
                            $crate::laws::BoxModule::<f32>::new($layer)
                        },
                    )
                }
            )+
        }
    };
}

/// Tests every law of losses over random shapes and hyper-parameters.
///
/// `loss:` is a closure from the reduction to the loss, `prediction:` the shape of y, `target:` a
/// [`TargetKind`](crate::laws::TargetKind); `wrong: [..]` is a shape of predictions that must be refused.
///
/// ```ignore
/// loss_laws! {
///     obeys_the_laws(rows in 1..5usize, width in 1..8usize) {
///         loss: |reduction| Mse::new().reduction(reduction),
///         prediction: [rows, width],
///         target: TargetKind::Values,
///     }
/// }
/// ```
#[macro_export]
macro_rules! loss_laws {
    (
        $(#![cases = $cases:expr])?
        $(
            $(#[$attribute:meta])*
            $name:ident($($pattern:pat_param in $strategy:expr),* $(,)?) {
                loss: |$reduction:ident| $loss:expr,
                prediction: $shape:expr,
                target: $target:expr
                $(, $option:ident: $value:expr)* $(,)?
            }
        )+
    ) => {
        $crate::__tests! {
            ($(Some($cases))?)
            $(
                $(#[$attribute])*
                $name($($pattern in $strategy),*) |seed| {
                    $crate::laws::loss_laws(
                        &$crate::laws::LossCase::new(seed, $shape, $target)$(.$option($value))*,
                        |$reduction| {
                            #[allow(dead_code)]
                            type T = f64;
                            $loss
                        },
                        |$reduction| {
                            #[allow(dead_code)]
                            type T = f32;
                            $loss
                        },
                    )
                }
            )+
        }
    };
}

/// Tests every law of losses of several predictions and targets over random shapes and hyper-parameters.
///
/// `objective:` is an expression, `predictions:` the shapes of the predictions, `targets:` a
/// [`TargetKind`](crate::laws::TargetKind) for each target; `wrong_predictions: [..]` are shapes that must be refused.
///
/// ```ignore
/// objective_laws! {
///     obeys_the_laws(rows in 1..5usize, width in 1..8usize) {
///         objective: WeightedSum::<T>::new().add(1.0, Mse::new()).add(0.5, Mse::new()),
///         predictions: [[rows, width], [rows, 1]],
///         targets: [TargetKind::Values, TargetKind::Values],
///     }
/// }
/// ```
#[macro_export]
macro_rules! objective_laws {
    (
        $(#![cases = $cases:expr])?
        $(
            $(#[$attribute:meta])*
            $name:ident($($pattern:pat_param in $strategy:expr),* $(,)?) {
                objective: $objective:expr,
                predictions: $shapes:expr,
                targets: $targets:expr
                $(, $option:ident: $value:expr)* $(,)?
            }
        )+
    ) => {
        $crate::__tests! {
            ($(Some($cases))?)
            $(
                $(#[$attribute])*
                $name($($pattern in $strategy),*) |seed| {
                    $crate::laws::objective_laws(
                        &$crate::laws::LossCase::several(seed, $shapes, $targets)$(.$option($value))*,
                        || {
                            #[allow(dead_code)]
                            type T = f64;
                            $objective
                        },
                        || {
                            #[allow(dead_code)]
                            type T = f32;
                            $objective
                        },
                    )
                }
            )+
        }
    };
}

/// A test over random cases for each body.
#[doc(hidden)]
#[macro_export]
macro_rules! __tests {
    (
        $cases:tt
        $(
            $(#[$attribute:meta])*
            $name:ident($($pattern:pat_param in $strategy:expr),*) |$seed:ident| $body:block
        )+
    ) => {
        $(
            $(#[$attribute])*
            /// Tests the laws over random cases.
            #[test]
            pub fn $name() {
                #[allow(unused_imports)]
                use $crate::laws::{TargetKind, Values};
                #[allow(unused_imports)]
                use ::proptest::{collection, option, prelude::*, test_runner};
                let strategy = ($($strategy,)* any::<u64>().no_shrink(),);
                let mut config = test_runner::Config {
                    source_file: ::core::option::Option::Some(file!()),
                    test_name: ::core::option::Option::Some(concat!(module_path!(), "::", stringify!($name))),
                    max_shrink_iters: $crate::laws::run::SHRINKS,
                    ..::core::default::Default::default()
                };
                if !$crate::laws::run::is_set("PROPTEST_CASES") {
                    config.cases = $crate::__cases!($cases).unwrap_or($crate::laws::run::CASES);
                }
                if !$crate::laws::run::is_set("PROPTEST_RNG_SEED") {
                    config.rng_seed = test_runner::RngSeed::Fixed($crate::laws::run::SEED);
                }
                let outcome = test_runner::TestRunner::new(config).run(&strategy, |($($pattern,)* $seed,)| {
                    match $crate::laws::run::verdict(&$body) {
                        ::core::option::Option::None => ::core::result::Result::Ok(()),
                        ::core::option::Option::Some(broken) => {
                            ::core::result::Result::Err(test_runner::TestCaseError::fail(broken))
                        }
                    }
                });
                if let ::core::result::Result::Err(error) = outcome {
                    panic!("{error}");
                }
            }
        )+
    };
}

/// The number of cases, if it was given.
#[doc(hidden)]
#[macro_export]
macro_rules! __cases {
    (()) => {
        ::core::option::Option::None
    };
    ((Some($cases:expr))) => {
        ::core::option::Option::Some($cases)
    };
}
