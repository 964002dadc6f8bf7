//! Tables that are well-formed and tables that are not.
#![cfg(feature = "csv")]

use chainrule_data::{Column, Csv};
use chainrule_tensor::Tensor;

fn text(csv: &Csv, source: &str, target: impl Into<Column>) -> String {
    csv.classes::<f32>(source.as_bytes(), target).unwrap_err().to_string()
}

#[test]
fn the_target_may_stand_anywhere() {
    let read =
        |source: &str, c: Column| Csv::new().header(false).values::<f64>(source.as_bytes(), c).unwrap();
    let d = read("1, 2, 3\n4, 5, 6\n", Column::At(1));
    assert_eq!(d.x(), &Tensor::from([[1.0, 3.0], [4.0, 6.0]]));
    assert_eq!(d.values().unwrap(), &Tensor::from([[2.0], [5.0]]));
    assert_eq!(read("1,2,3\n", Column::Last).values().unwrap().data(), [3.0]);
}

#[test]
fn labels_that_are_numbers_are_sorted_as_numbers() {
    let d = Csv::new().delimiter(b';').classes::<f32>("x;y\n1;10\n2;9\n3;10\n".as_bytes(), "y").unwrap();
    assert_eq!((d.class_names(), d.labels()), (&["9".to_string(), "10".into()][..], Some(&[1, 0, 1][..])));
}

#[test]
fn a_second_file_gets_the_classes_of_the_first() {
    let csv = Csv::new().class_names(["a", "b", "c"]);
    assert_eq!(csv.classes::<f32>("x,y\n1,c\n".as_bytes(), "y").unwrap().labels(), Some(&[2][..]));
    assert_eq!(text(&csv, "x,y\n1,d\n", "y"), "csv: line 2, column 2 (y): expected a known class, got `d`");
}

#[test]
fn bad_tables_name_line_and_column() {
    let csv = Csv::new();
    assert_eq!(
        text(&csv, "x,y\n1,a\n\n,a\n", "y"),
        "csv: line 4, column 1 (x): expected a finite number, got ``"
    );
    assert_eq!(
        text(&csv, "x,y\nNaN,a\n", "y"),
        "csv: line 2, column 1 (x): expected a finite number, got `NaN`"
    );
    assert_eq!(
        text(&csv, "x,y\n1e99,a\n", "y"),
        "csv: line 2, column 1 (x): expected a finite number, got `1e99`"
    );
    assert_eq!(text(&csv, "x,y\n1,\n", "y"), "csv: line 2, column 2 (y): expected a class, got ``");
    assert_eq!(text(&csv, "x,y\n1,a\n1,a,3\n", "y"), "csv: line 3: expected 2 columns, got 3");
    assert_eq!(text(&csv, "x,y\n1,a\n", "z"), r#"csv: target column: expected one of ["x", "y"], got `z`"#);
    assert_eq!(text(&csv, "x,y\n1,a\n", 2), "csv: target column: expected a place below 2, got 2");
    let bare = Csv::new().header(false);
    assert_eq!(text(&bare, "1,a\n", "y"), "csv: target column: expected a header to find `y` in, got none");
    let bytes = csv.values::<f32>(&b"x,y\n1,2\n1,\xff\n"[..], "y").unwrap_err().to_string();
    assert_eq!(bytes, "csv: line 3, column 2: expected UTF-8, got another byte at 0");
}

#[test]
fn lines_are_counted_whatever_ends_them() {
    let csv = Csv::new();
    for end in ["\n", "\r\n", "\n\r\n"] {
        let source = format!("x,y{end}\"1\",\"a\"{end}2,b{end}");
        assert_eq!(csv.classes::<f64>(source.as_bytes(), "y").unwrap().x(), &Tensor::from([[1.0], [2.0]]));
    }
    assert_eq!(
        text(&csv, "x,y\r\n1,a\r\n\r\n?,a", "y"),
        "csv: line 4, column 1 (x): expected a finite number, got `?`"
    );
    let marked = "\u{feff}x,y\n1,a";
    assert_eq!(
        csv.classes::<f64>(marked.as_bytes(), "x").map(|d| d.len()).unwrap_err().to_string(),
        "csv: line 2, column 2 (y): expected a finite number, got `a`"
    );
}

#[test]
fn no_rows_and_no_features_are_errors() {
    for source in ["", "x,y\n", "y\na\n"] {
        assert!(Csv::new().classes::<f32>(source.as_bytes(), "y").is_err(), "{source:?}");
    }
}

#[test]
fn a_number_is_one_class_however_it_is_written() {
    let read = |labels: &str| {
        let source = format!("x,y\n{}", labels.split(' ').map(|l| format!("0,{l}\n")).collect::<String>());
        let d = Csv::new().classes::<f32>(source.as_bytes(), "y").unwrap();
        (d.class_names().join(" "), d.labels().unwrap().to_vec())
    };
    assert_eq!(read("1 1.0 01 2 +1 1e0 10"), ("1 2 10".into(), vec![0, 0, 0, 1, 0, 0, 2]));
    assert_eq!(read("-0 0 0.50 .5 -1.0 -1"), ("-1 0 0.5".into(), vec![1, 1, 2, 2, 0, 0]));
    // A label that is written in one way keeps it, and long numbers keep their digits.
    assert_eq!(read("007 8"), ("007 8".into(), vec![0, 1]));
    assert_eq!(read("9007199254740993 9007199254740992").1, [1, 0]);
    // Text stays text.
    assert_eq!(read("1 01 a"), ("01 1 a".into(), vec![1, 0, 2]));
}

#[test]
fn a_quote_left_open_is_an_error_at_its_line() {
    let csv = Csv::new();
    let expected = "csv: line 3, column 2 (y): expected a closing quote on the same line, got none";
    assert_eq!(text(&csv, "x,y\n1,a\n2,\"b\n3,c\n4,d\n", "y"), expected);
    assert_eq!(text(&csv, "x,y\n1,a\n2,\"b", "y"), expected);
    assert_eq!(text(&csv, "x,y\n1,a\n2,\"b\n3,\"c\"\n", "y"), expected);
    assert_eq!(
        text(&csv, "x,\"y\n1,a\n", "y"),
        "csv: line 1, column 2: expected a closing quote on the same line, got none"
    );
    assert_eq!(csv.classes::<f32>("x,y\n1,\"a,\"\"b\"\n".as_bytes(), "y").unwrap().class_name(0), "a,\"b");
}

#[test]
fn two_columns_of_one_name_are_an_error() {
    assert_eq!(
        text(&Csv::new(), "x,y, x\n1,a,2\n", "y"),
        "csv: line 1: expected columns of different names, got `x` in columns 1 and 3"
    );
}
