package Contestants;

# Who takes part, and how each is attached to tables as its documentation says. Each one has a
# database of its own, made from the same template, so that all see the same SQL.
#
#   id          names the database
#   name        for the tables
#   attach      (session, tables): attaches it to tables; keys of {tables} that have none are undef
#   per         how many rows of its log one changed row gives; 1 unless said
#   log         tables that hold its log (SQL: a query of regclass), counted and weighed
#   options     PGOPTIONS of its sessions
#   package     PostgreSQL extension that has to be there
#   peer        made by others; writes its log in the same transaction
#   context     statement that sets user and context for one transaction; set_local: the two SET LOCAL

use strict;
use warnings;
use Exporter 'import';
use Bench;

our @EXPORT = qw(contestants who not_there);

my $dir = $INC{'Contestants.pm'} =~ s,/[^/]*$,,r;
my $module = "$ENV{BENCH_WORK}/empty_trigger";
my $log_of_ours = q{SELECT relid FROM pg_partition_tree('audit_log.change') WHERE isleaf};

sub file_of
{
	my ($name) = @_;
	open my $file, '<', "$dir/$name" or die "$dir/$name: $!";
	local $/;
	return scalar <$file>;
}

sub attach_empty
{
	my ($session, $tables) = @_;
	$session->run("CREATE FUNCTION empty_trigger() RETURNS trigger LANGUAGE C AS '$module'");
	$session->run("CREATE TRIGGER empty_trigger AFTER INSERT OR UPDATE OR DELETE ON $_ FOR EACH ROW EXECUTE FUNCTION empty_trigger()")
		for sort keys %$tables;
}

sub attach_plpgsql_row
{
	my ($session, $tables) = @_;
	$session->run(file_of('peers/plpgsql_row.sql'));
	for my $table (sort keys %$tables)
	{
		my $key = defined $tables->{$table} ? "'$tables->{$table}'" : '';
		$session->run("CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON $table FOR EACH ROW EXECUTE FUNCTION audit_row($key)");
	}
}

sub attach_plpgsql_statement
{
	my ($session, $tables) = @_;
	$session->run(file_of('peers/plpgsql_statement.sql'));
	for my $table (sort keys %$tables)
	{
		my $key = defined $tables->{$table} ? "'$tables->{$table}'" : '';
		my %rows = (insert => 'NEW TABLE AS new_rows', delete => 'OLD TABLE AS old_rows',
			update => 'OLD TABLE AS old_rows NEW TABLE AS new_rows');
		$session->run("CREATE TRIGGER audit_$_ AFTER $_ ON $table REFERENCING $rows{$_} FOR EACH STATEMENT EXECUTE FUNCTION audit_$_($key)")
			for sort keys %rows;
	}
}

sub attach_tablelog
{
	my ($session, $tables) = @_;
	$session->run('CREATE EXTENSION table_log');
	# 5: with a number, the mode, the time and the user of each change
	$session->run("SELECT table_log_init(5, 'public', '$_', 'public', '${_}_log')") for sort keys %$tables;
}

sub attach_periods
{
	my ($session, $tables) = @_;
	$session->run('CREATE EXTENSION periods CASCADE');
	$session->run("SELECT periods.add_system_time_period('$_', 'row_start', 'row_end'); SELECT periods.add_system_versioning('$_')")
		for sort keys %$tables;
}

sub attach_pgq
{
	my ($function) = @_;
	return sub {
		my ($session, $tables) = @_;
		$session->run("CREATE EXTENSION pgq; SELECT pgq.create_queue('bench')");
		# backup: the old row too, without which there is no audit
		$session->run("CREATE TRIGGER pgq AFTER INSERT OR UPDATE OR DELETE ON $_ FOR EACH ROW EXECUTE FUNCTION pgq.$function('bench', 'backup')")
			for sort keys %$tables;
	};
}

# audit_log, with arguments of enable()
sub attach_audit_log
{
	my ($arguments) = @_;
	return sub {
		my ($session, $tables) = @_;
		$session->run('CREATE EXTENSION audit_log');
		$session->run("SELECT audit_log.enable('$_'" . ($arguments ? ", $arguments" : '') . ')') for sort keys %$tables;
	};
}

# audit_log, without those indexes of the log whose definitions match
sub attach_without
{
	my ($pattern) = @_;
	return sub {
		my ($session, $tables) = @_;
		attach_audit_log()->($session, $tables);
		my @indexes = $session->run("SELECT indexrelid::regclass FROM pg_index WHERE indrelid IN ($log_of_ours) AND pg_get_indexdef(indexrelid) ~ '$pattern'");
		@indexes or fail("no index of the log matches $pattern");
		$session->run("DROP INDEX $_") for @indexes;
	};
}

sub attach_by_hand
{
	my ($session, $tables) = @_;
	$session->run('CREATE EXTENSION audit_log');
	$session->run("CREATE TRIGGER audit_log_row AFTER INSERT OR UPDATE OR DELETE ON $_ FOR EACH ROW EXECUTE FUNCTION audit_log.capture()")
		for sort keys %$tables;
}

my $user = '-c audit_log.user_id=42 -c audit_log.context={"request":"4bf92f35-77b3-4da6-a3ce-929d0e0e4736"}';
my $none = "SELECT set_config('app.user_id', '42', true), set_config('app.context', '{\"request\": \"4bf92f35-77b3-4da6-a3ce-929d0e0e4736\"}', true)";
my $set_context = "SELECT audit_log.set_context('42', '{\"request\": \"4bf92f35-77b3-4da6-a3ce-929d0e0e4736\"}')";

my @all = (
	{ id => 'unaudited', name => 'unaudited', attach => sub { }, per => { U => 0, I => 0, D => 0 } },
	{ id => 'empty', name => 'empty trigger', attach => \&attach_empty, per => { U => 0, I => 0, D => 0 } },
	# what makes these two is in measure: bound_setup()
	{ id => 'bound', name => 'the bound', bound => 1, log => q{SELECT 'bound_log'::regclass} },
	{ id => 'bound_bare', name => 'the bound, no transaction row', bound => 1, bare => 1, log => q{SELECT 'bound_log'::regclass} },
	{ id => 'bound_two', name => 'the bound, in two statements', bound => 1, apart => 1, log => q{SELECT 'bound_log'::regclass} },
	{ id => 'audit_log', name => 'audit_log', attach => attach_audit_log(), ours => 1 },
	# with version tables
	{ id => 'bound_versions', name => 'the bound, versions too', bound => 1, versions => 1, log => q{SELECT 'bound_log'::regclass} },
	{ id => 'versioned', name => 'audit_log, versioned', attach => attach_audit_log('versioned => true'), ours => 1, versions => 1 },
	# its modes
	{ id => 'm_context', name => 'audit_log, user and context set', attach => attach_audit_log(), ours => 1, mode => 1, options => $user },
	{ id => 'm_require', name => 'audit_log, require', attach => attach_audit_log("require => '{user_id,request}'"), ours => 1, mode => 1, options => $user },
	{ id => 'm_user_column', name => 'audit_log, user_column: another user in each row', attach => attach_audit_log("user_column => 'name'"), ours => 1, mode => 1 },
	{ id => 'm_condition', name => 'audit_log, condition', attach => attach_audit_log("condition => 'NEW.quantity >= 0'"), ours => 1, mode => 1 },
	{ id => 'm_exclude', name => 'audit_log, exclude', attach => attach_audit_log("exclude => '{updated_at,attributes}'"), ours => 1, mode => 1 },
	{ id => 'm_mask', name => 'audit_log, mask', attach => attach_audit_log("mask => '{quantity,name}'"), ours => 1, mode => 1 },
	{ id => 'm_by_hand', name => 'audit_log, row trigger by hand', attach => \&attach_by_hand, ours => 1, mode => 1 },
	# with fewer indexes of the log
	{ id => 'x_table', name => 'without (table_id, id >> 8)', attach => attach_without('table_id, \(\(id'), ours => 1, index => 1 },
	{ id => 'x_transaction', name => 'without (transaction_id)', attach => attach_without('\(transaction_id\)'), ours => 1, index => 1 },
	{ id => 'x_summary', name => 'without BRIN (id, timestamp)', attach => attach_without('brin'), ours => 1, index => 1 },
	{ id => 'x_key', name => 'without (record_id, table_id)', attach => attach_without('record_id audit_log.key_length_ops'), ours => 1, index => 1 },
	{ id => 'x_all', name => 'without any index', attach => attach_without('.'), ours => 1, index => 1 },
	# peers
	{ id => 'p_row', name => 'PL/pgSQL row trigger', attach => \&attach_plpgsql_row, peer => 1, log => q{SELECT 'audit'::regclass} },
	{ id => 'p_statement', name => 'PL/pgSQL statement trigger', attach => \&attach_plpgsql_statement, peer => 1, log => q{SELECT 'audit'::regclass} },
	# old and new row for an UPDATE
	{ id => 'p_tablelog', name => 'table_log', attach => \&attach_tablelog, peer => 1, package => 'table_log', per => { U => 2, I => 1, D => 1 },
		log => q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname LIKE '%\_log'} },
	# a row enters the history when it is changed or deleted
	{ id => 'p_periods', name => 'periods', attach => \&attach_periods, peer => 1, package => 'periods', per => { U => 1, I => 0, D => 1 },
		log => q{SELECT oid::regclass FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname LIKE '%\_history'
			AND relname <> 'pgbench_history'} },
	{ id => 'p_jsontriga', name => 'pgq jsontriga', attach => attach_pgq('jsontriga'), peer => 1, package => 'pgq',
		log => q{SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'pgq.event_template'::regclass)} },
	{ id => 'p_logutriga', name => 'pgq logutriga', attach => attach_pgq('logutriga'), peer => 1, package => 'pgq',
		log => q{SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'pgq.event_template'::regclass)} },
);
for (@all)
{
	$_->{log} //= $log_of_ours if $_->{ours};
	$_->{per} //= { U => 1, I => 1, D => 1 };
	$_->{context} = $_->{ours} ? $set_context : $none;
	my $prefix = $_->{ours} ? 'audit_log' : 'app';
	$_->{set_local} = "SET LOCAL $prefix.user_id = '42';\nSET LOCAL $prefix.context = '{\"request\": \"4bf92f35-77b3-4da6-a3ce-929d0e0e4736\"}';\n";
}
my %by_id = map { $_->{id} => $_ } @all;

my %there = map { $_ => 1 } admin()->run('SELECT name FROM pg_available_extensions');

# Those of these ids (or 'peers', 'modes', 'fewer_indexes') that can be measured here
sub who
{
	my @ids = map { $_ eq 'peers' ? (map { $_->{id} } grep { $_->{peer} } @all)
			: $_ eq 'modes' ? (map { $_->{id} } grep { $_->{mode} } @all)
			: $_ eq 'fewer_indexes' ? (map { $_->{id} } grep { $_->{index} } @all) : $_ } @_;
	return map { +{ %{ $by_id{$_} // fail("no contestant $_") } } }
		grep { !$by_id{$_}{package} || $there{ $by_id{$_}{package} } } @ids;
}

sub not_there { return grep { $_->{package} && !$there{ $_->{package} } } @all }

1;
