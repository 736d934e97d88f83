# docs/reference.md is what the catalog says now, and every object has a COMMENT.

use strict;
use warnings FATAL => 'all';

use BDR::Node;
use BDR::Test;
use PostgreSQL::Test::Utils qw(run_command);
use Test::More;

# scripts/check puts the pages beside the tests; in a checkout they are where they are.
my ($page) = grep { -e } ('../docs/reference.md', '../../docs/reference.md');
my ($script) = grep { -e } ('../docs/reference.sql', '../../scripts/reference.sql');
die 'docs/reference.md or scripts/reference.sql is not there' unless defined $page && defined $script;

my $node = BDR::Node->create('host1');
$node->sql('CREATE EXTENSION bdr');

my $lacking = "SELECT object FROM uncommented ORDER BY 1;\n";
my ($out, $err) = run_command([ 'psql', '-AtqX', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($node->db), '-f', $script ]);
is($err, '', 'the reference can be made');

my @now = split /\n/, $out, -1;
my @written = split /\n/, slurp_file($page) =~ s/\n\z//r, -1;
my (%in_now, %in_written);
$in_now{$_}++ for @now;
$in_written{$_}++ for @written;
my @added = grep { !$in_written{$_} } @now;
my @gone = grep { !$in_now{$_} } @written;
ok("@now" eq "@written", 'docs/reference.md is up to date')
  or diag(join "\n", 'type `make reference`; what differs:', (map { "+ $_" } @added), map { "- $_" } @gone);

my $sql = slurp_file($script) . $lacking;
my ($status, $all) = $node->psql($node->db, $sql);
is($status, 0, 'the list of objects without a COMMENT can be made');
is(substr($all, length $out), '', 'every object has a COMMENT');

done_testing();
