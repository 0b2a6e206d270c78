package Contest;

# One contest: several contestants do the same works in turns, each in a database of its own.
#
# Contest->new(
#   label        for the progress lines
#   base         sub (session): makes and fills the tables in the template database
#   tables       {table => its key column, or undef}
#   refill       SQL: brings the tables back to what base made of them
#   produce      sub (contest): [name, SQL, keyed] …: statements that make the ready-made rows of the
#                bound, to be run audited; keyed: the ready row is looked up by n, its record's key
#   contestants  of Contestants::who(); the first one is the unaudited one
#   works        a list of
#     id, name, unit        'tps' or 'ms'
#     changes               {U, I, D => changed rows} of one transaction, or of the statement
#     vacuum                tables, before each turn
#     tps: script, variables, count (each a sub (contestant))      pgbench -t
#     ms:  sql (sub (contestant)), repeat
#   rounds, peer_rounds, peer_bulk_rounds (0: only the first one, which is not timed for the others), clients, slice (seconds that the unaudited one takes for a turn),
#   pin          instead of PIN
#   peer_part    part of the count for peers, which take longer
#   ours         the contestant that peers are compared with; audit_log unless said
# )->run

use strict;
use warnings;
use List::Util qw(max sum0);
use Bench;

sub new { my ($class, %o) = @_; return bless { clients => 1, peer_part => 1, ours => 'audit_log', peer_rounds => $o{rounds}, %o }, $class }

sub make_database
{
	my ($self, $c) = @_;
	admin()->run("DROP DATABASE IF EXISTS bench_$c->{id}; CREATE DATABASE bench_$c->{id} TEMPLATE bench_base");
	$c->{session} = session("bench_$c->{id}", $c->{options});
	$c->{tables} = [ sort keys %{ $self->{tables} } ];
	$c->{part} = $c->{peer} ? $self->{peer_part} : 1;
	$c->{expected} = 0;
	if ($c->{bound}) { $self->make_bound($c) }
	else { $c->{attach}->($c->{session}, $self->{tables}) }
}

# The bound: the very log rows that audit_log writes for the same work, ready-made in tables; and
# tables like the log's own, with its indexes, to put them into.
sub make_bound
{
	my ($self, $c) = @_;
	my $s = $c->{session};
	my $log = q{audit_log.change};
	$s->run('CREATE EXTENSION audit_log');
	my @tables = sort keys %{ $self->{tables} };
	my $arguments = $c->{versions} ? ', versioned => true' : '';
	$s->run("SELECT audit_log.enable('$_'$arguments)") for @tables;
	for ($self->{produce}->($self))
	{
		my ($name, $sql, $keyed) = @$_;
		my $mark = $s->value("SELECT coalesce(max(id), 0) FROM $log");
		my $transactions = $s->value('SELECT coalesce(max(id), 0) FROM audit_log.transaction');
		$s->run($sql);
		make_ready_versions($c, $name, $sql, $keyed, $transactions) if $c->{versions};
		my $n = $keyed ? 'coalesce(record_id::bigint, 1) AS n, ' : '';
		$s->run("CREATE TABLE $name AS SELECT ${n}c.* FROM $log c WHERE id > $mark");
		$s->run("ALTER TABLE $name ADD PRIMARY KEY (n)") if $keyed;
		$s->run("VACUUM (FREEZE, ANALYZE) $name");
		$s->value("SELECT count(*) FROM $name") or fail("no ready-made rows in $name");
	}
	my @partitions = $s->run("SELECT DISTINCT tableoid::regclass FROM $log");
	@partitions == 1 or fail("the log's rows are in @partitions: the month turned meanwhile, begin again");
	my $columns = sub { return $s->run("SELECT attname FROM pg_attribute WHERE attrelid = '$_[0]'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum") };
	my @change = $columns->($partitions[0]);
	my @transaction = $columns->('audit_log.transaction');
	(grep { $_ eq 'id' } @change) && (grep { $_ eq 'transaction_id' } @change) or fail('the log has other columns than the bound knows');
	$s->run("CREATE TABLE bound_log (LIKE $partitions[0] INCLUDING ALL);"
		. 'CREATE TABLE bound_transaction (LIKE audit_log.transaction INCLUDING ALL);'
		. 'CREATE TABLE ready_transaction AS SELECT * FROM audit_log.transaction LIMIT 1;'
		. 'CREATE SEQUENCE bound_change_id; CREATE SEQUENCE bound_transaction_id; CREATE SEQUENCE bound_transaction_row');
	for (['bound_log', $partitions[0]], ['bound_transaction', 'audit_log.transaction'])
	{
		my $options = $s->value("SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = '$_->[1]'::regclass");
		$s->run("ALTER TABLE $_->[0] SET ($options)") if $options;
	}
	my $count = sub { return $s->value("SELECT count(*) FROM pg_index WHERE indrelid = '$_[0]'::regclass") };
	$count->('bound_log') == $count->($partitions[0]) or fail('the bound lacks indexes of the log');
	$c->{change_columns} = \@change;
	$c->{transaction_columns} = \@transaction;
	$s->run("SELECT audit_log.disable('$_')") for @tables;
	if ($c->{versions})
	{
		for (@tables)
		{
			$s->run("CREATE TABLE bound_${_}_version (LIKE ${_}_version INCLUDING ALL)");
			$count->("bound_${_}_version") == $count->("${_}_version") or fail("the bound lacks indexes of ${_}_version");
			$c->{version_columns}{$_} = [ $columns->("${_}_version") ];
		}
	}
	$s->run("SET session_replication_role = replica; $self->{refill}; RESET session_replication_role");
	Contestants::attach_empty($s, $self->{tables});
}

# The versions that a statement makes, beside the rows of its log
sub make_ready_versions
{
	my ($c, $name, $sql, $keyed, $after) = @_;
	my ($table) = $sql =~ /^(?:UPDATE|INSERT INTO|DELETE FROM) (\w+)/ or fail("which table does this change: $sql");
	my $n = $keyed ? 'id AS n, ' : '';
	$c->{session}->run("CREATE TABLE ${name}_v AS SELECT $n* FROM ${table}_version WHERE transaction_id > $after");
	$c->{session}->run("ALTER TABLE ${name}_v ADD PRIMARY KEY (n)") if $keyed;
	$c->{session}->run("VACUUM (FREEZE, ANALYZE) ${name}_v");
	$c->{session}->value("SELECT count(*) FROM ${name}_v") or fail("no ready-made versions in ${name}_v");
	$c->{ready_of}{$name} = $table;
}

# What brings the ready-made versions into their table: the record's open one is closed by its key
sub version_statements
{
	my ($c, $ready, $where, $transaction_id) = @_;
	my $table = $c->{ready_of}{$ready};
	my @columns = @{ $c->{version_columns}{$table} };
	my $and = $where ? " AND $where" : '';
	return ("UPDATE bound_${table}_version v SET end_transaction_id = $transaction_id, valid_to = r.valid_from FROM ${ready}_v r"
			. " WHERE v.id = r.id AND v.end_transaction_id IS NULL$and",
		"INSERT INTO bound_${table}_version (" . join(', ', map { qq("$_") } @columns) . ') SELECT '
			. join(', ', map { $_ eq 'transaction_id' ? $transaction_id : /^(end_transaction_id|valid_to)$/ ? 'NULL' : qq(r."$_") } @columns)
			. " FROM ${ready}_v r" . ($where ? " WHERE $where" : ''));
}

# A statement as the contestant runs it. For the bound, with the insertion of the ready-made rows that
# fit "where", in the same statement so that no second round trip is charged to it; the first
# statement of a transaction inserts a transaction row too. rows: how many it changes (many: an
# unknown number). Ids come from sequences, as they do in audit_log: in ascending order.
sub statement
{
	my ($self, $c, $sql, %o) = @_;
	return "$sql;\n" unless $c->{bound};
	my $first = $o{first} // 1;
	my $many = $o{many};
	my $transaction_id = $first ? "nextval('bound_transaction_id')" : "currval('bound_transaction_id')";
	my @with;
	if ($c->{versions} && !$o{apart})
	{
		push @with, "i AS MATERIALIZED (SELECT $transaction_id AS id)";
		$transaction_id = '(SELECT id FROM i)';
	}
	$transaction_id = "(SELECT $transaction_id)" if $many;
	my %expression = (id => "nextval('bound_change_id')", transaction_id => $transaction_id);
	if ($first && !$c->{bare})
	{
		push @with, 't AS (INSERT INTO bound_transaction (' . join(', ', map { qq("$_") } @{ $c->{transaction_columns} }) . ') SELECT '
			. join(', ', map { $_ eq 'id' ? "nextval('bound_transaction_row')" : qq("$_") } @{ $c->{transaction_columns} })
			. ' FROM ready_transaction)';
	}
	my $insert = 'INSERT INTO bound_log (' . join(', ', map { qq("$_") } @{ $c->{change_columns} }) . ') SELECT '
		. join(', ', map { $expression{$_} // qq(r."$_") } @{ $c->{change_columns} }) . " FROM $o{ready} r" . ($o{where} ? " WHERE $o{where}" : '');
	my ($close, $versions) = $c->{versions} ? version_statements($c, $o{ready}, $o{where}, $o{apart} ? "(SELECT currval('bound_transaction_id'))" : $transaction_id) : ();
	if ($close && !$o{apart})
	{
		push @with, "l AS ($insert)", "o AS ($close)";
		$insert = $versions;
	}
	if ($c->{apart} || $o{apart})
	{
		$insert = 'WITH ' . join(', ', @with) . " $insert" if @with;
		return "BEGIN;\n$sql;\n$insert;\n$close;\n$versions;\nCOMMIT;\n" if $close;
		return "$sql;\n$insert;\n" if $o{apart} || !$first || $o{in_transaction};
		return "BEGIN;\n$sql;\n$insert;\nCOMMIT;\n";
	}
	return 'WITH ' . join(', ', "w AS ($sql)", @with) . " $insert;\n";
}

# ---- what the log holds

sub log_relations { my ($c) = @_; return $c->{log} ? $c->{session}->run($c->{log}) : () }

sub log_rows
{
	my ($c) = @_;
	return sum0 map { $c->{session}->value("SELECT count(*) FROM ONLY $_") } log_relations($c);
}

sub version_tables { my ($c) = @_; return map { ($c->{bound} ? 'bound_' : '') . "${_}_version" } $c->{versions} ? @{ $c->{tables} } : () }

# The open version of each row, and nothing else, as after versioned => true; how many
sub reset_versions
{
	my ($c) = @_;
	my @tables = version_tables($c) or return;
	my $s = $c->{session};
	for (0 .. $#tables)
	{
		my $table = $c->{tables}[$_];
		$s->run("TRUNCATE $tables[$_]");
		if ($c->{bound})
		{
			$s->run("INSERT INTO $tables[$_] SELECT *, 0, NULL, 0, now(), NULL FROM $table");
		}
		else
		{
			$s->run("SET client_min_messages = warning; SELECT audit_log.enable('$table', versioned => false); SELECT audit_log.enable('$table', versioned => true)");
		}
		$s->run("VACUUM ANALYZE $tables[$_]");
	}
	$c->{initial} = count_versions($c);
}

sub count_versions { my ($c) = @_; return sum0 map { $c->{session}->value("SELECT count(*) FROM $_") } version_tables($c) }

# Bytes of heap, indexes and toast; of the transaction rows; and rows' record_id and changes alone
sub log_bytes
{
	my ($c) = @_;
	my %bytes = (heap => 0, index => 0, toast => 0, transaction => 0, own => 0);
	for (log_relations($c))
	{
		my ($heap, $index, $toast) = split /\|/, $c->{session}->value("SELECT pg_relation_size(oid), pg_indexes_size(oid),
			CASE WHEN reltoastrelid = 0 THEN 0 ELSE pg_total_relation_size(reltoastrelid) END FROM pg_class WHERE oid = '$_'::regclass");
		$bytes{heap} += $heap; $bytes{index} += $index; $bytes{toast} += $toast;
		$bytes{own} += $c->{session}->value("SELECT coalesce(sum(coalesce(pg_column_size(record_id), 0) + coalesce(pg_column_size(changes), 0)), 0) FROM ONLY $_")
			if $c->{ours} || $c->{bound};
	}
	for (version_tables($c))
	{
		my ($heap, $index) = split /\|/, $c->{session}->value("SELECT pg_table_size('$_'), pg_indexes_size('$_')");
		$bytes{heap} += $heap; $bytes{index} += $index;
	}
	my $transaction = $c->{ours} ? 'audit_log.transaction' : $c->{bound} ? 'bound_transaction' : undef;
	$bytes{transaction} = $c->{session}->value("SELECT pg_total_relation_size('$transaction')") if $transaction;
	return \%bytes;
}

sub empty_log
{
	my ($c) = @_;
	reset_versions($c);
	my @relations = log_relations($c) or return;
	push @relations, $c->{ours} ? 'audit_log.transaction' : $c->{bound} ? 'bound_transaction' : ();
	my @guarded = $c->{ours} ? @relations : ();
	$c->{session}->run(join ';', 'BEGIN; SET LOCAL session_replication_role = replica',
		(map { "ALTER TABLE $_ DISABLE TRIGGER audit_log_guard" } @guarded),
		'TRUNCATE ' . join(', ', @relations),
		(map { "ALTER TABLE $_ ENABLE ALWAYS TRIGGER audit_log_guard" } @guarded), 'COMMIT');
	$c->{expected} = 0;
}

# Nobody's number counts unless his log has a row for each change.
sub verify
{
	my ($c, $after) = @_;
	my $rows = log_rows($c);
	$rows == $c->{expected} or fail("$c->{name}: $rows rows in its log after $after, and not $c->{expected}");
	return if !$c->{versions};
	my $versions = count_versions($c) - $c->{initial};
	$versions == $c->{expected} or fail("$c->{name}: $versions versions after $after, and not $c->{expected}");
}

# ---- turns

# One turn, from an empty log: transactions a second, or milliseconds; and how many rows were changed
sub turn
{
	my ($self, $c, $work) = @_;
	$c->{session}->run("VACUUM $_") for @{ $work->{vacuum} || [] };
	empty_log($c);
	my ($value, $times);
	if ($work->{unit} eq 'tps')
	{
		my $count = $work->{count}->($c);
		my $variables = $work->{variables} ? $work->{variables}->($c, $count) : {};
		($value, $times) = pgbench("bench_$c->{id}", $work->{script}->($c), t => $count, c => $self->{clients}, D => $variables, options => $c->{options});
	}
	else
	{
		$times = $work->{repeat} || 1;
		$value = $c->{session}->timed(join '', map { $work->{sql}->($c) } 1 .. $times) / $times;
	}
	my $changes = 0;
	for (keys %{ $work->{changes} })
	{
		$changes += $times * $work->{changes}{$_};
		$c->{expected} += $times * $work->{changes}{$_} * $c->{per}{$_};
	}
	verify($c, $work->{name});
	return ($value, $changes);
}

# The first round also measures WAL and the log's growth. Its times count for those only that take
# part in no other.
sub weigh
{
	my ($self, $c, $work) = @_;
	empty_log($c);
	my $before = log_bytes($c);
	my $from = wal_position();
	my ($value, $changes) = $self->turn($c, $work);
	my $to = wal_position();
	my $after = log_bytes($c);
	my ($records, $images) = wal_between($from, $to);
	return { value => $value, changes => $changes, wal => $records / $changes, images => $images / $changes,
		map { $_ => ($after->{$_} - $before->{$_}) / $changes } keys %$after };
}

sub run
{
	my ($self) = @_;
	pin($self->{clients} == 1, $self->{pin});
	admin()->run('DROP DATABASE IF EXISTS bench_base; CREATE DATABASE bench_base');
	my $base = session('bench_base');
	$self->{base}->($base);
	$base->close;
	my @contestants = @{ $self->{contestants} };
	$self->make_database($contestants[0]);
	if (my ($first) = grep { $_->{unit} eq 'tps' } @{ $self->{works} })
	{
		# a turn's number of transactions, equal for all
		my $c = $contestants[0];
		$c->{next} = $self->{first_id} // 0;
		admin()->run('CHECKPOINT');
		my $tps;
		($tps) = pgbench("bench_$c->{id}", $first->{script}->($c), T => 1, c => $self->{clients}, D => $first->{variables}->($c, 1)) for 1, 2;
		$self->{count} = max(50, int($tps * $self->{slice} / $self->{clients}));
	}
	$self->make_database($_) for @contestants[ 1 .. $#contestants ];
	say_now("$self->{label}: ", scalar @contestants, ' contestants are set up', $self->{count} ? ", $self->{count} transactions a turn" : '');

	my (%measured, %weight);
	for my $round (0 .. $self->{rounds})
	{
		my @now = grep { $round == 0 || !$_->{peer} || $round <= $self->{peer_rounds} } @contestants;
		my $shift = $round % @now;
		@now = (@now[ $shift .. $#now ], @now[ 0 .. $shift - 1 ]);
		# A page that is changed for the first time after a checkpoint goes to the WAL as a whole: an
		# untimed turn takes most of that away.
		admin()->run('CHECKPOINT');
		my $first = $self->{works}[0];
		if ($first->{unit} eq 'tps') { $self->turn($_, $first) for @now }
		for my $work (@{ $self->{works} })
		{
			for my $c (@now)
			{
				next if $round && $c->{peer} && $work->{unit} eq 'ms' && $round > ($self->{peer_bulk_rounds} // $self->{peer_rounds});
				$c->{next} //= $self->{first_id} // 0;
				$c->{from} //= $c->{next};
				my $got = $round == 0 ? ($weight{ $work->{id} }{ $c->{id} } = $self->weigh($c, $work)) : undef;
				$measured{ $work->{id} }{ $c->{id} }[$round] = $got ? $got->{value} : ($self->turn($c, $work))[0];
			}
		}
		say_now($self->{label}, ': ', $round ? "round $round of $self->{rounds}" : 'warm, and weighed');
	}
	for (@contestants)
	{
		$_->{session}->close;
		admin()->run("DROP DATABASE bench_$_->{id}");
	}
	$self->{measured} = \%measured;
	$self->{weight} = \%weight;
	return $self;
}

# ---- results

# Ratios to the unaudited one of the same round
sub ratios
{
	my ($self, $work, $id) = @_;
	my $base = $self->{measured}{$work}{ $self->{contestants}[0]{id} };
	my $mine = $self->{measured}{$work}{$id} || [];
	my @rounds = grep { defined $mine->[$_] } $#$mine > 0 ? (1 .. $#$mine) : (0 .. $#$mine);
	return [ map { $mine->[$_] / $base->[$_] } @rounds ];
}

# What the unaudited work does, absolutely
sub unaudited
{
	my ($self, $id) = @_;
	my ($work) = $self->selected($id);
	my $all = $self->{measured}{$id}{ $self->{contestants}[0]{id} };
	my $median = median(@$all[ 1 .. $#$all ]);
	return $work->{unit} eq 'tps' ? sprintf('%.0f/s', $median) : sprintf('%.1f ms', $median);
}

# Contestants by works
sub print_ratios
{
	my ($self, @ids) = @_;
	my @works = $self->selected(@ids);
	my $unaudited = $self->{contestants}[0];
	my @rows = [ $unaudited->{name}, map { $self->unaudited($_->{id}) } @works ];
	for my $c (@{ $self->{contestants} }[ 1 .. $#{ $self->{contestants} } ])
	{
		push @rows, [ $c->{name}, map { spread($self->ratios($_->{id}, $c->{id})) } @works ];
	}
	table([ '', map { $_->{name} } @works ], @rows);
	table([ 'bytes a change: WAL + page images; log', map { $_->{name} } @works ],
		map { my $c = $_; [ $c->{name}, map { $self->sizes($_->{id}, $c->{id}) } @works ] } @{ $self->{contestants} });
	$self->print_ahead(@works);
}

# What a change of this work writes: the WAL of the tracked table too, and the log in all its parts
sub sizes
{
	my ($self, $work, $id) = @_;
	my $w = $self->{weight}{$work}{$id} or return '-';
	my $log = $w->{heap} + $w->{index} + $w->{toast};
	return sprintf('%.0f + %.0f; %s', $w->{wal}, $w->{images}, $log ? sprintf('%.0f', $log) : '-');
}

# Where does a peer that logs these works do better?
sub print_ahead
{
	my ($self, @works) = @_;
	my (@behind, $rows);
	for my $work (@works)
	{
		my $sign = $work->{unit} eq 'tps' ? 1 : -1;
		my $ours = $self->ratios($work->{id}, $self->{ours});
		for my $c (grep { $_->{peer} && !grep { !$_ } @{ $_->{per} }{ keys %{ $work->{changes} } } } @{ $self->{contestants} })
		{
			my $theirs = $self->ratios($work->{id}, $c->{id});
			next if !@$ours || !@$theirs;
			$rows++;
			push @behind, "$work->{name}: $c->{name}" if $sign * median(@$theirs) >= $sign * median(@$ours);
		}
	}
	paragraph(@behind ? 'Ahead of audit_log: ' . join('; ', @behind) . ".\n" : "audit_log is ahead of every peer that logs the work, in all $rows comparisons.\n") if $rows;
}

sub selected
{
	my ($self, @ids) = @_;
	my %wanted = map { $_ => 1 } @ids;
	return grep { !@ids || $wanted{ $_->{id} } } @{ $self->{works} };
}

# Bytes of one work, contestants by kind of bytes
sub print_weights
{
	my ($self, $id) = @_;
	my ($work) = $self->selected($id);
	my @rows;
	for my $c (@{ $self->{contestants} })
	{
		my $w = $self->{weight}{$id}{ $c->{id} };
		my $whole = $w->{heap} + $w->{index} + $w->{toast};
		push @rows, [ $c->{name}, (map { sprintf '%.0f', $_ } @$w{qw(wal images heap index toast)}, $whole),
			$w->{own} ? sprintf('%.0f', $whole - $w->{own}) : '-', $w->{transaction} ? sprintf('%.0f', $w->{transaction}) : '-' ];
	}
	table([ "bytes a change, $work->{name}", 'WAL', 'page images', 'heap', 'indexes', 'toast', 'log', 'beyond key and changes', 'transaction rows' ], @rows);
}

1;
