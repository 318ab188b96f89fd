# Perl's Cache::Memcached::Fast against one server: `perl with_perl.pl HOST PORT`.
use strict;
use warnings;
use Cache::Memcached::Fast;
use Time::HiRes qw(sleep time);

my ($host, $port) = @ARGV;
my $client = Cache::Memcached::Fast->new({
    servers => ["$host:$port"],
    io_timeout => 20,
    connect_timeout => 20,
    max_size => 4_000_000,
});

sub same {
    my ($found, $expected, $what) = @_;
    my ($left, $right) = map { defined $_ ? $_ : 'nothing' } $found, $expected;
    die "$what: found " . substr($left, 0, 100) . ", expected " . substr($right, 0, 100) . "\n"
        if $left ne $right;
}

sub until_gone {
    my ($key) = @_;
    my $deadline = time + 20;
    while (defined $client->get($key)) {
        die "$key is still there\n" if time > $deadline;
        sleep 0.05;
    }
}

same($client->set('k', '1'), 1, 'set');
same($client->get('k'), '1', 'get');
same($client->add('k', '2'), '', 'add');
same($client->replace('k', '3'), 1, 'replace');
same($client->append('k', '4'), 1, 'append');
same($client->prepend('k', '2'), 1, 'prepend');
same($client->get('k'), '234', 'get after them');
$client->set_multi(map { ["m$_", $_] } 1 .. 100);
my $found = $client->get_multi(map { "m$_" } 1 .. 110);
same(scalar(keys %$found), 100, 'get_multi');
my ($unique, $value) = @{ $client->gets('k') };
same($client->cas('k', $unique, '5'), 1, 'cas');
same($client->cas('k', $unique, '6'), '', 'cas again');
$client->set('n', 10);
same($client->incr('n', 5), 15, 'incr');
same($client->decr('n', 20) + 0, 0, 'decr');
same($client->incr('none', 1), '', 'incr of nothing');
$client->set('t', '1', 1);
until_gone('t');
$client->set('t', '1');
same($client->touch('t', 1), 1, 'touch');
until_gone('t');
my $large = 'v' x 1_000_000;
same($client->set('large', $large), 1, 'set of a large value');
same($client->get('large'), $large, 'get of a large value');
my $binary = join '', map { chr } 0 .. 255;
$client->set('binary', $binary);
same($client->get('binary'), $binary, 'binary');
same($client->delete('k'), 1, 'delete');
same($client->delete('k'), '', 'delete again');
# Without a wish for the result it sends noreply.
$client->set('s', '1');
$client->append('s', '2');
same($client->get('s'), '12', 'noreply');
my ($version) = values %{ $client->server_versions };
die "version $version\n" if $version !~ /^1\.6\./;
$client->flush_all;
same(scalar $client->get('s'), undef, 'flush_all');
