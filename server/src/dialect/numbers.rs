//! Number literals with an exponent: `1e300` is a double here, not a numeric of 301 digits.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Value, VisitMut, VisitorMut,
};

/// Rewrites them in place, in any syntax tree.
pub(super) fn rewrite(tree: &mut impl VisitMut) {
    let _ = tree.visit(&mut Numbers);
}

struct Numbers;

impl VisitorMut for Numbers {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Value(literal) = expr
            && let Value::Number(text, _) = &literal.value
            && text.contains(['e', 'E'])
        {
            let text = Value::SingleQuotedString(text.clone()).with_empty_span();
            *expr = Expr::Cast {
                kind: CastKind::DoubleColon,
                expr: Box::new(Expr::Value(text)),
                data_type: DataType::Double(ExactNumberInfo::None),
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    }
}
