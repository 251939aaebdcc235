CREATE TABLE `Order` (
  id int unsigned NOT NULL AUTO_INCREMENT,
  a tinyint(1) DEFAULT 1, b bit(5) DEFAULT b'101', c char(3) CHARACTER SET latin1 DEFAULT 'é''x',
  d varchar(20) DEFAULT 'a\\b"c`d\n\tz', e enum('a','it''s','é','x,y','b\\s',') CHARACTER SET x') DEFAULT 'it''s', f set('p','q') NOT NULL DEFAULT 'p,q',
  g decimal(10,3) DEFAULT -12.5, h double DEFAULT 1e-100, i float(7,2), j date DEFAULT '2020-01-01', k time(3) DEFAULT '12:00:00.5',
  l datetime(6) DEFAULT current_timestamp(6) ON UPDATE current_timestamp(6), m timestamp NULL DEFAULT NULL,
  n timestamp NOT NULL DEFAULT current_timestamp() ON UPDATE current_timestamp(), o year DEFAULT 2020,
  p varbinary(10) DEFAULT 0x00ff41, p2 binary(3) NOT NULL DEFAULT 0xfefefe, q binary(4), r text DEFAULT 'x', s blob DEFAULT ('abc'), t json DEFAULT '{}',
  u uuid DEFAULT uuid(), v inet6 DEFAULT '::1', w inet4, x int DEFAULT (1+2*3), y varchar(40) DEFAULT concat('a\\','b'''), z int(5) zerofill,
  aa int AS (x+1) VIRTUAL, bb varchar(30) AS (concat(d,'_`x`\\''')) STORED,
  cc int GENERATED ALWAYS AS (`x` * 2) PERSISTENT UNIQUE COMMENT 'gen''d \\ x', dd point, ee geometry NOT NULL,
  ff longtext COMPRESSED CHARACTER SET utf8mb3 COLLATE utf8mb3_bin, gg int INVISIBLE DEFAULT 4,
  ii varchar(10) DEFAULT NULL, jj varchar(10) DEFAULT 'NULL', kk varchar(30) DEFAULT 'current_timestamp()', ll varchar(10) NOT NULL,
  mm int NOT NULL DEFAULT 0 CHECK (mm >= 0), oo varchar(5) COLLATE utf8mb4_bin DEFAULT '', pp datetime DEFAULT now(), qq double(10,4) unsigned,
  rr datetime DEFAULT (now() + interval 1 day), ss int NOT NULL DEFAULT (case when a = 1 then 2 else 3 end), tt mediumblob, uu tinytext, vv bigint unsigned DEFAULT 18446744073709551615,
  `a b` int, `x``y` int, `ünï` int, `select` int, `DEFAULT` int DEFAULT 5 COMMENT 'NOT NULL DEFAULT 3, CHECK (1)',
  `n234567890123456789012345678901234567890123456789012345678901234` int,
  PRIMARY KEY (id), UNIQUE KEY u1 (d(5), e DESC), KEY k1 (c, `a b` DESC), KEY `k``2` (`x``y`) COMMENT 'idx''c\\', FULLTEXT KEY ft (d),
  SPATIAL KEY sp (ee), KEY ig (x) IGNORED, KEY bt (y) USING BTREE, KEY ks (h) KEY_BLOCK_SIZE=4, UNIQUE KEY uh (r) USING HASH,
  CONSTRAINT chk CHECK (`x` > 0 AND d <> 'a\\''b'), CONSTRAINT `ch``k` CHECK (`a b` IN (1,2,3) OR `select` IS NULL OR ff <> 'ü)')
) ENGINE=InnoDB AUTO_INCREMENT=1000 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_general_ci ROW_FORMAT=DYNAMIC COMMENT='it''s a \\ table' STATS_PERSISTENT=1;
CREATE TABLE `order` (k varchar(9) CHARACTER SET latin1 COLLATE latin1_bin PRIMARY KEY) DEFAULT CHARSET=latin2 ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8;
CREATE TABLE `a b` (`p 1` int NOT NULL, d date NOT NULL, PRIMARY KEY (`p 1`, d))
  PARTITION BY RANGE (year(d)) SUBPARTITION BY HASH (`p 1`) SUBPARTITIONS 2
  (PARTITION `p 1` VALUES LESS THAN (2000) COMMENT 'x y', PARTITION `p``2` VALUES LESS THAN MAXVALUE);
CREATE TABLE `x``y` (id int NOT NULL, l int NOT NULL, PRIMARY KEY (id, l))
  PARTITION BY LIST COLUMNS (l) (PARTITION p0 VALUES IN (1,2), PARTITION p1 VALUES IN (3,NULL), PARTITION pd DEFAULT);
CREATE TABLE `ünï` (id char(5) COLLATE utf8mb4_bin, KEY (id)) DEFAULT CHARSET=utf8mb4 PARTITION BY KEY (id) PARTITIONS 3;
CREATE TABLE `T234567890123456789012345678901234567890123456789012345678901234` (id int, n bigint AUTO_INCREMENT, s date, e date,
  PERIOD FOR p (s, e), PRIMARY KEY (id, p WITHOUT OVERLAPS), KEY counter (n), UNIQUE KEY other (n, id));
CREATE TABLE `pa.rent` (`p 1` int, d date, KEY other (d), PRIMARY KEY (`p 1`, d));
CREATE TABLE `select` (id int PRIMARY KEY, k int unsigned, x int, `p.1` int, `d` date, self int,
  FOREIGN KEY (k) REFERENCES `Order` (id) ON DELETE CASCADE ON UPDATE SET NULL,
  CONSTRAINT `fk``2` FOREIGN KEY (`p.1`, d) REFERENCES `pa.rent` (`p 1`, d) ON DELETE SET NULL,
  CONSTRAINT own FOREIGN KEY (self) REFERENCES `select` (id));
CREATE TABLE keyed (a int NOT NULL, b varbinary(8) NOT NULL, c int, n int NOT NULL AUTO_INCREMENT, UNIQUE KEY long_one (a, b, n), UNIQUE KEY short_one (b), UNIQUE KEY open_one (c), UNIQUE KEY (n, a), KEY counted (n));
CREATE TABLE my (id int PRIMARY KEY, KEY (id)) ENGINE=InnoDB CHECKSUM=1 MAX_ROWS=1000;
CREATE TABLE ar (id int, n varchar(9)) ENGINE=InnoDB;
ALTER TABLE ar ALTER COLUMN n DROP DEFAULT;
CREATE TABLE wide (id int PRIMARY KEY, e enum('😀','?','it''s','\\?') CHARACTER SET utf8mb4 NOT NULL, s set('a','😀','🚀?') CHARACTER SET utf8mb4 DEFAULT 'a,😀', n varchar(9) CHARACTER SET utf8mb4 NOT NULL DEFAULT 'Why? 🚀', b varbinary(9) DEFAULT 0xff3f) DEFAULT CHARSET=latin1;
INSERT INTO wide (id, e) VALUES (1, 1);
