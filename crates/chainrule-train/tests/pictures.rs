//! Pictures of a real training.

mod common;

use chainrule_losses::CrossEntropy;
use chainrule_train::{
    Progress, Trainer,
    pictures::{Svg, learning_curves, mistakes},
};
use common::{Sgd, iris, mlp};

/// Every element is closed, and nothing but numbers stands in the attributes of shapes.
fn check(svg: &Svg) {
    let text = svg.as_str();
    let opened = text.matches('<').count() - text.matches("</").count();
    assert_eq!(opened, text.matches("/>").count() + text.matches("</").count());
    assert!(!text.contains("NaN") && !text.contains("inf\"") && text.starts_with("<svg xmlns="));
}

#[test]
fn curves_and_mistakes_are_drawn_and_saved() {
    let data = chainrule_data::samples::digits::<f32>();
    let (train, test) = data.flatten().split_stratified(0.2, 1).unwrap();
    let (train, validation) = train.split_stratified(0.2, 1).unwrap();
    let mut trainer = Trainer::new(mlp([64, 24, 10], 1), CrossEntropy::new(), Sgd(0.3))
        .epochs(8)
        .validation(validation)
        .early_stopping(4)
        .progress(Progress::Silent);
    let history = trainer.fit(&train).unwrap();
    let curves = learning_curves(&history);
    check(&curves);
    for text in [">loss<", ">accuracy<", ">epoch<", ">training<", ">validation<", ">best: epoch "] {
        assert!(curves.as_str().contains(text), "{text}");
    }

    let report = trainer.evaluate(&test).unwrap();
    let wrong = report.mistakes().count();
    assert!((1..60).contains(&wrong), "{report}");
    let test = test.reshape(&[1, 8, 8]).unwrap();
    let sheet = mistakes(&report, &test, 3).unwrap();
    check(&sheet);
    assert!(
        sheet.as_str().contains(&format!(">{wrong} of 359 predicted wrong, the first 3 (true → predicted)<"))
    );
    assert_eq!(sheet.as_str().matches('→').count(), 1 + 3.min(wrong));
    let path = std::env::temp_dir().join(format!("chainrule-train-sheet-{}.svg", std::process::id()));
    sheet.save(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), sheet.to_string());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_report_about_other_data_is_an_error() {
    let data = iris::<f32>();
    let report = Trainer::new(mlp([4, 8, 3], 1), CrossEntropy::new(), Sgd(0.3)).evaluate(&data).unwrap();
    assert!(mistakes(&report, &data, 3).unwrap_err().to_string().contains("expected images"));
    let square = data.reshape(&[2, 2]).unwrap();
    assert!(mistakes(&report, &square, 3).is_ok());
    let part = square.select(&[0, 1]).unwrap();
    assert!(mistakes(&report, &part, 3).unwrap_err().to_string().contains("a report about 2 samples"));
}

#[test]
fn a_class_that_the_data_do_not_have_counts_as_wrong() {
    let data = iris::<f32>();
    let report =
        Trainer::new(mlp::<f32>([4, 8, 5], 1), CrossEntropy::new(), Sgd(0.3)).evaluate(&data).unwrap();
    let confusion = report.confusion().unwrap();
    assert_eq!((confusion.classes(), confusion.total()), (5, 150));
    assert_eq!(report.accuracy(), report.scores().accuracy());
}
