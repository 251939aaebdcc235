//! Members of an enum or a set as they are.
//!
//! The server's catalog knows characters of three bytes at most: of a member `😀` both `information_schema` and SHOW CREATE
//! TABLE say `?` (seen on MariaDB 10.11), while its rows hold it and its log holds its number. A variable of the column's
//! type says what each number stands for.

use godwit_model::{Result, TableName};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use crate::tokens::{Piece, Token};
use crate::{error, quote};

/// Character sets that hold more than the catalog can say.
const WIDE: [&str; 4] = ["utf8mb4", "utf16", "utf16le", "utf32"];

/// Whether these may be other members than they seem.
pub(crate) fn may_be_cut(declared: &[Piece], charset: &str) -> bool {
    let is_list = declared.first().is_some_and(|piece| piece.is_word("enum") || piece.is_word("set"));
    let asks = |piece: &Piece| matches!(&piece.token, Token::Text(member) if member.contains(&b'?'));
    is_list && WIDE.contains(&charset) && declared.iter().any(asks)
}

pub(crate) async fn restore(conn: &mut Conn, table: &TableName, column: &str, declared: &mut [Piece]) -> Result<()> {
    let is_set = declared.first().is_some_and(|piece| piece.is_word("set"));
    let members: Vec<&mut Piece> = declared.iter_mut().filter(|piece| matches!(piece.token, Token::Text(_))).collect();
    let mut sql = format!("BEGIN NOT ATOMIC DECLARE v TYPE OF {}.{};", quote::table(table), quote::identifier(column));
    for at in 0..members.len() {
        let number = if is_set { 1u64.checked_shl(u32::try_from(at).unwrap_or(u32::MAX)).unwrap_or(0) } else { at as u64 + 1 };
        sql.push_str(&format!(" SET v = {number}; SELECT v;"));
    }
    sql.push_str(" END");
    let mut answers = conn.query_iter(sql).await.map_err(error::from_server)?;
    for member in members {
        let rows: Vec<Row> = answers.collect().await.map_err(error::from_server)?;
        if let Some(Value::Bytes(real)) = rows.first().and_then(|row| row.as_ref(0)) {
            member.token = Token::Text(real.clone());
        }
    }
    answers.drop_result().await.map_err(error::from_server)
}
